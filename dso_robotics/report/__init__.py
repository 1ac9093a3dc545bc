"""Reports: tables, figures, HTML, films."""
