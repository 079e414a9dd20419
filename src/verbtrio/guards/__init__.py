"""Who is let in, and how often: middleware, origins, proxies, quotas, rates, headers for browsers, secrets."""
