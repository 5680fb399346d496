"""Messages of the SDK in the terms of the command line and of inventories.

Must not know where they are shown.
"""

import re

_OUR_WORDS = {
    r"TLS\(ca_file=\.\.\.\)": "--ca-file (in an inventory, tls.ca_file)",
    r"TLS\(pin='sha256:\.\.\.'\)": "--pin (in an inventory, tls.pin)",
    r"TLS\(client_cert=\.\.\., client_key=\.\.\.\)": "tls.client_cert and tls.client_key of an inventory",
    r"TLS\(strict_x509=False\)": "tls.strict_x509 = false in an inventory",
    r"TLS\(minimum_version='TLSv1'\)": "tls.minimum_version = 'TLSv1' in an inventory",
    r"TLS\(server_name=\.\.\.\)": "tls.server_name of an inventory",
    r"TLS\(ca_file=('.*')\) cannot": r"the authorities in \1 cannot",
    r"TLS\(client_cert=('.*')\) cannot": r"the certificate in \1 cannot",
    r"TLS\(client_key=\.\.\.\) needs": "client_key needs",
    r"To see it: openssl .*": "`aiovbo pin URL` shows it.",
    r"\(deadline=\.\.\.\)": "(--deadline)",
    r"\(concurrency=\.\.\.\)": "(concurrency, in [fleet] of an inventory)",
    r"Request fewer items \(page_size=\.\.\.\), or raise max_body": (
        "Raise max_body, in [fleet] of an inventory"
    ),
    r"If it is right, raise max_resource": "If it is right, raise max_resource, in [fleet] of an inventory",
    r"use api_version='auto'": "set api_version = 'auto' in the inventory",
    r"and give it as api_version if need be": "or give it as api_version in an inventory",
    r"say Server\(\.\.\., allow_http=True\)": "say --allow-http",
    r"give one a name=\.\.\. of its own": "give each --url once, or names of their own in an inventory",
    r"Remove one of them, or give it other credentials": (
        "Give each --url once (in an inventory, remove one of them, or give it other credentials)"
    ),
    r"give them as Password\(\.\.\.\)": (
        "give --user, and the variable VBO_PASSWORD (in an inventory, credentials)"
    ),
    r"no servers are configured: write an inventory (.+?), or set \S+ to the path .*": (
        r"which servers? Give an inventory (--fleet FILE, the variable AIOVBO_FLEET, or a file \1), or "
        "addresses: --url vbo1.tech.local --user 'TECH\\\\monitor'. `aiovbo demo` needs neither."
    ),
    r"expected proxy=(\"http://host:port\") or proxy=(\"environment\")": r"expected \1 or \2",
    r"Password needs a user name such": "the user name is missing, such",
    r"the provider of its (.*?) failed \((.*)\)": r"its \1 is not available (\2)",
    r"Fix the provider, or give the secret itself": "Fix the secret, or its entry in the inventory",
}
"""Terms of the SDK's messages, and their terms in commands and inventories."""


def to_cli_terms(text: str) -> str:
    """A message of the SDK, with options and keys in place of Python's arguments."""
    for said, ours in _OUR_WORDS.items():
        text = re.sub(said, ours, text)
    return text
