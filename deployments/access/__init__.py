"""Who may ask the gateway, and how much: keys, limits, Host, CORS, security headers."""
