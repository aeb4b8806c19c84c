"""What reports are drawn with: escaped text, and the frame, tables and pictures of self-contained HTML pages."""
