"""What people look at: projections, panels, previews; PNG files."""
