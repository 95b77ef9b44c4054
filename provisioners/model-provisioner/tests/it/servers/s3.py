"""moto's S3, behind a check of URL signatures by botocore: moto itself takes any.

Prints its port. Ends when its standard input does, so that it never outlives its test.
"""

import datetime
import os
import sys
import threading
from urllib.parse import parse_qsl, urlencode

from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

ACCOUNTS = {
    "AKIATESTACCOUNT": ("secret/of+the=account", None),
    "ASIATEMPORARY": ("temporary/secret", "session+token/of=it"),
}
REGION = "eu-west-1"


def refusal(environ):
    """The error code for a signed request that does not hold."""
    query = parse_qsl(environ["QUERY_STRING"], keep_blank_values=True)
    given = dict(query)
    if "X-Amz-Signature" not in given:
        return None
    key, _, region, _, _ = given["X-Amz-Credential"].split("/")
    if key not in ACCOUNTS:
        return "InvalidAccessKeyId"
    secret, token = ACCOUNTS[key]
    if given.get("X-Amz-Security-Token") != token:
        return "InvalidToken"
    if region != REGION:
        return "AuthorizationQueryParametersError"
    signed_at = datetime.datetime.strptime(given["X-Amz-Date"], "%Y%m%dT%H%M%SZ")
    age = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None) - signed_at
    if age.total_seconds() > int(given["X-Amz-Expires"]):
        return "AccessDenied"
    headers = {
        name: environ["HTTP_" + name.upper().replace("-", "_")]
        for name in given["X-Amz-SignedHeaders"].split(";")
    }
    unsigned = urlencode([(name, value) for name, value in query if name != "X-Amz-Signature"])
    request = AWSRequest(
        method=environ["REQUEST_METHOD"],
        url=f"http://{environ['HTTP_HOST']}{environ['RAW_URI'].split('?')[0]}?{unsigned}",
        headers=headers,
    )
    request.context["timestamp"] = given["X-Amz-Date"]
    request.params = {name: value for name, value in query if name != "X-Amz-Signature"}
    auth = S3SigV4QueryAuth(Credentials(key, secret, token), "s3", region)
    text = auth.string_to_sign(request, auth.canonical_request(request))
    return None if auth.signature(text, request) == given["X-Amz-Signature"] else "SignatureDoesNotMatch"


class Checked:
    def __init__(self, inner):
        self.inner = inner

    def __call__(self, environ, start_response):
        code = refusal(environ)
        if code is None:
            return self.inner(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "application/xml"), ("x-amz-bucket-region", REGION)])
        return [f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>".encode()]


class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, *_):
        pass


def watch():
    sys.stdin.read()
    os._exit(0)


server = make_server(
    "127.0.0.1", 0, Checked(DomainDispatcherApplication(create_backend_app)), threaded=True, request_handler=Quiet
)
threading.Thread(target=watch, daemon=True).start()
print(server.port, flush=True)
server.serve_forever()
