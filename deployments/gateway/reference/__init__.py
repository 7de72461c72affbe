"""The API as it describes itself: OpenAPI for programs, the tables of docs/api.md for people."""
