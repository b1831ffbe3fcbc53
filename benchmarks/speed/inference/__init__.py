"""Speed of exported networks: sessions, files, the server, the browser."""
