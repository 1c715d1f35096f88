"""`parma-skr`: the key-release sidecar, with the REST interface of the sidecar of Azure's confidential containers.

A privileged container of the group, which its policy must allow. The other containers of the pod, which share its
network, reach it at http://localhost:8080 ($Port). Requests and answers are JSON, base64 is the standard one:

    GET  /status                                                  {"message": "Status OK"}
    POST /attest/raw       {"runtime_data": b64}                  {"report": hex}
    POST /attest/combined  {"runtime_data": b64}                  {"evidence", "endorsements", "uvm_endorsements",
                                                                   "endorsed_tcb"}: base64, the last hex
    POST /attest/maa       {"maa_endpoint", "runtime_data": b64}  {"token": JWT}
    POST /key/release      {"maa_endpoint", "akv_endpoint", "kid"[, "access_token"]}
                                                                  {"key": the private JWK, as JSON text}

Endpoints are `HOST[:PORT]` or `https://HOST[:PORT]`: `parma broker` for both, or Microsoft's services. `kid` is `NAME`
or `NAME/VERSION`. So the JWK of an oct key, whose `k` is its bytes in base64url:

    answer = POST /key/release {"maa_endpoint": B, "akv_endpoint": B, "kid": "model"}
    key = base64url-decode(json(answer["key"])["k"])

In Python: `parma_tenant.sidecar.skr.client.release_key`. Every error is {"error": one line}: 400 what was asked cannot
be meant, 403 refused (the evidence, or the key's policy), 429 too many at a time, 503 a service or the device is away
or slow: try again, 500. A report is over SHA-256(runtime_data), then zeros, so no caller can make it carry a
transcript's head.

Its settings are environment variables, which the policy measures: `options`.
"""
