"""Who may use the console, and from where: logins, sessions, roles, tokens, and the headers of every answer."""
