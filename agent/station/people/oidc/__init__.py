"""Logging in by an OpenID Connect provider: Authorization Code with PKCE (RFC 6749, RFC 7636, OpenID Connect Core 1.0).

settings.py    [web.oidc]
flow.py        what binds a login to the browser that began it (pure but for what is spent)
http.py        one bounded request
claims.py      whom a provider vouches for
token.py       what an ID token must be: joserfc, and nothing else knows it
provider.py    the provider's three answers: its addresses, a token for a code, its keys
links.py       who of the station's people somebody at the provider is: the admin says so, nobody signs himself up
entrance.py    all of it in order, with the delays and the audit log of the other entrance
"""
