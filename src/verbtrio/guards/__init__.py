"""What guards an app: middleware, origins, proxies, quotas, rates, security headers, CSRF protection, secrets."""
