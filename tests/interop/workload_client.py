"""The PyPI package `spiffe`, unmodified, as a workload of a Ravelin agent.

Prints one JSON line for each thing that it saw; `python.rs` judges them. It is told on stdin when to go on, and
ends by itself when what it waits for does not come.
"""

import base64
import hashlib
import json
import sys
import threading

from cryptography.hazmat.primitives.serialization import Encoding
from spiffe import JwtSource, JwtSvid, TrustDomain, WorkloadApiClient, X509Source

PATIENCE_SECS = 60


def say(event, **seen):
    print(json.dumps({"event": event, **seen}), flush=True)


def certificate(der):
    return base64.b64encode(der).decode()


def x509_state(source, trust_domain):
    svid = source.get_x509_context().default_svid
    bundle = source.get_bundle_for_trust_domain(trust_domain)
    return {
        "spiffe_id": str(svid.spiffe_id),
        "chain": [certificate(one.public_bytes(Encoding.DER)) for one in svid.cert_chain],
        "key_fits": svid.private_key.public_key().public_numbers() == svid.leaf.public_key().public_numbers(),
        "authorities": sorted(certificate(one.public_bytes(Encoding.DER)) for one in bundle.x509_authorities),
    }


def jwt_state(source, trust_domain):
    bundle = source.get_bundle_for_trust_domain(trust_domain)
    return {"key_ids": sorted(bundle.jwt_authorities)}


def refused(validate):
    try:
        validate()
    except Exception as error:  # any refusal is the one that is wanted; its kind is shown
        return type(error).__name__
    return None


def watch(source):
    changed = threading.Event()
    source.subscribe_for_updates(changed.set)
    return changed


def wait_until(changed, look, is_wanted):
    """Looks at each change until the state is the wanted one."""
    state = look()
    while not is_wanted(state):
        if not changed.wait(PATIENCE_SECS):
            raise SystemExit("no update within %d s; last state: %s" % (PATIENCE_SECS, json.dumps(state)))
        changed.clear()
        state = look()
    return state


def main(socket, domain, audience):
    trust_domain = TrustDomain(domain)
    client = WorkloadApiClient(socket)
    say(
        "fetched",
        ids=[str(svid.spiffe_id) for svid in client.fetch_x509_svids(timeout=PATIENCE_SECS)],
        x509_domains=[str(bundle.trust_domain) for bundle in client.fetch_x509_bundles(timeout=PATIENCE_SECS).bundles],
        jwt_domains=[str(bundle.trust_domain) for bundle in client.fetch_jwt_bundles(timeout=PATIENCE_SECS).bundles],
    )

    x509 = X509Source(socket_path=socket, timeout_in_seconds=PATIENCE_SECS)
    jwt = JwtSource(socket_path=socket, timeout_in_seconds=PATIENCE_SECS)
    x509_changed, jwt_changed = watch(x509), watch(jwt)
    first_x509, first_jwt = x509_state(x509, trust_domain), jwt_state(jwt, trust_domain)
    say("x509", **first_x509)
    say("jwt_bundle", **first_jwt)

    svid = jwt.fetch_svid({audience}, timeout=PATIENCE_SECS)
    bundle = jwt.get_bundle_for_trust_domain(trust_domain)
    local = JwtSvid.parse_and_validate(svid.token, bundle, {audience})
    remote = client.validate_jwt_svid(svid.token, audience, timeout=PATIENCE_SECS)
    changed_token = svid.token[:-8] + ("A" * 8 if not svid.token.endswith("A" * 8) else "B" * 8)
    say(
        "jwt",
        spiffe_id=str(svid.spiffe_id),
        audience=sorted(svid.audience),
        token_digest=hashlib.sha256(svid.token.encode()).hexdigest(),
        local_id=str(local.spiffe_id),
        remote_id=str(remote.spiffe_id),
        wrong_audience_local=refused(lambda: JwtSvid.parse_and_validate(svid.token, bundle, {"another"})),
        wrong_audience_remote=refused(lambda: client.validate_jwt_svid(svid.token, "another", timeout=PATIENCE_SECS)),
        changed_local=refused(lambda: JwtSvid.parse_and_validate(changed_token, bundle, {audience})),
        changed_remote=refused(lambda: client.validate_jwt_svid(changed_token, audience, timeout=PATIENCE_SECS)),
    )

    sys.stdin.readline()  # X.509 and JWT authorities have been rotated, the old ones revoked
    rotated = wait_until(
        x509_changed,
        lambda: x509_state(x509, trust_domain),
        lambda state: not set(state["authorities"]) & set(first_x509["authorities"])
        and state["chain"] != first_x509["chain"],
    )
    say("x509_rotated", **rotated)
    rotated = wait_until(
        jwt_changed,
        lambda: jwt_state(jwt, trust_domain),
        lambda state: not set(state["key_ids"]) & set(first_jwt["key_ids"]),
    )
    say("jwt_rotated", **rotated)
    later = jwt.fetch_svid({audience}, timeout=PATIENCE_SECS)
    validated = JwtSvid.parse_and_validate(later.token, jwt.get_bundle_for_trust_domain(trust_domain), {audience})
    say(
        "jwt_after_rotation",
        spiffe_id=str(validated.spiffe_id),
        old_remote=refused(lambda: client.validate_jwt_svid(svid.token, audience, timeout=PATIENCE_SECS)),
    )
    x509.close()
    jwt.close()
    client.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
