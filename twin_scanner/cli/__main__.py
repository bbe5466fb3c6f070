"""`python -m twin_scanner.cli` is the same as `twin-scanner`."""

from twin_scanner.cli.command_line import main

if __name__ == "__main__":
    main()
