"""Access keys: made, shown and ended by their users, and what a service is told of who signed with one."""

import base64
import hashlib
import hmac
import json
import subprocess
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from clients import client
from conftest import Running
from identity.people import V3, Person, openstack, person, sign_in, token, with_token
from nacre.core import clock
from nacre.identity import signatures

SIGN = "import json, sys; from keystoneclient.contrib.ec2.utils import Ec2Signer; print(Ec2Signer(sys.argv[1]).generate(json.loads(sys.argv[2])))"


def signed(secret: str, **said: Any) -> dict[str, Any]:
    """What upstream's own client library makes of a request."""
    done = subprocess.run([client("python"), "-c", SIGN, secret, json.dumps(said)], capture_output=True, text=True, check=True, timeout=60)
    return {**said, "signature": done.stdout.strip()}


@pytest.fixture(scope="module")
def ann(running: Running) -> Person:
    return person(running, "ann", "member")


@pytest.fixture(scope="module")
def mine(ann: Person) -> Iterator[httpx.Client]:
    with ann.http() as opened:
        yield opened


@pytest.fixture(scope="module")
def admin(running: Running) -> Iterator[httpx.Client]:
    with running.http() as opened:
        yield opened


@pytest.fixture(scope="module")
def key(ann: Person, mine: httpx.Client) -> dict[str, Any]:
    return made(mine, ann)


def made(client: httpx.Client, user: Person, project_id: str = "") -> dict[str, Any]:
    answer = client.post(f"{V3}/users/{user.id}/credentials/OS-EC2", json={"tenant_id": project_id or user.project_id})
    assert answer.status_code == 201, answer.text
    return answer.json()["credential"]


def test_life(ann: Person, mine: httpx.Client) -> None:
    one, at = made(mine, ann), f"{V3}/users/{ann.id}/credentials/OS-EC2"
    assert (one["user_id"], one["tenant_id"], one["trust_id"]) == (ann.id, ann.project_id, None)
    assert one["links"]["self"].endswith(f"{at}/{one['access']}")
    assert mine.get(f"{at}/{one['access']}").json()["credential"] == one
    assert one in mine.get(at).json()["credentials"]
    assert one["access"] in {json.loads(each["blob"])["access"] for each in mine.get(f"{V3}/credentials").json()["credentials"]}
    assert mine.delete(f"{at}/{one['access']}").status_code == 204
    assert mine.get(f"{at}/{one['access']}").status_code == mine.delete(f"{at}/{one['access']}").status_code == 404
    assert mine.post(at, json={}).status_code == 400 and "tenant_id" in mine.post(at, json={}).text
    assert mine.post(at, json={"tenant_id": "none"}).status_code == 404


def test_they_are_ones_own(running: Running, ann: Person, key: dict[str, Any], admin: httpx.Client) -> None:
    at, eve = f"{V3}/users/{ann.id}/credentials/OS-EC2", person(running, "eve", "member")
    with eve.http() as other:
        for path in (at, f"{at}/{key['access']}", f"{V3}/users/{eve.id}/credentials/OS-EC2/{key['access']}"):
            assert other.get(path).status_code == 403, path
        assert other.post(at, json={"tenant_id": eve.project_id}).status_code == 403
        assert other.post(f"{V3}/ec2tokens", json={"credentials": {}}).status_code == 403, "only services ask who signed"
    assert admin.get(f"{at}/{key['access']}").json()["credential"] == key
    assert admin.post(f"{V3}/users/none/credentials/OS-EC2", json={"tenant_id": ann.project_id}).status_code == 404


def second(key: dict[str, Any], **params: str) -> dict[str, Any]:
    said = {"SignatureVersion": "2", "Action": "Test", "Timestamp": clock.utcnow().isoformat() + "Z", "AWSAccessKeyId": key["access"], **params}
    return signed(key["secret"], access=key["access"], host="cloud.example:8773", verb="GET", path="/services/Cloud", params=said)


def test_version_2(ann: Person, key: dict[str, Any], admin: httpx.Client) -> None:
    for body in ({"credentials": second(key)}, {"ec2Credentials": second(key, Filter="a b&c=é~*")}):
        answer = admin.post(f"{V3}/ec2tokens", json=body)
        assert answer.status_code == 200, answer.text
        told = answer.json()["token"]
        assert (told["user"]["id"], told["project"]["id"], told["methods"]) == (ann.id, ann.project_id, ["ec2credential"])
    with with_token(ann.running, answer.headers["x-subject-token"]) as acting:
        assert acting.get(f"{V3}/auth/catalog").status_code == 200
    without_port = {**second(key), "host": "cloud.example"}
    resigned = signed(key["secret"], **{name: value for name, value in without_port.items() if name != "signature"})
    assert admin.post(f"{V3}/ec2tokens", json={"credentials": {**resigned, "host": "cloud.example:8773"}}).status_code == 200


def fourth(key: dict[str, Any], when: datetime, **said: Any) -> dict[str, Any]:
    date = when.strftime("%Y%m%dT%H%M%SZ")
    scope = f"{key['access']}/{date[:8]}/RegionOne/ec2/aws4_request"
    headers = {"Host": "cloud.example", "X-Amz-Date": date,
               "Authorization": f"AWS4-HMAC-SHA256 Credential={scope},SignedHeaders=host;x-amz-date,Signature=0"}  # fmt: skip
    whole = {"host": "cloud.example", "verb": "GET", "path": "/", "params": {"Action": "Test"}, "headers": headers,
             "body_hash": hashlib.sha256(b"").hexdigest(), **said}  # fmt: skip
    return signed(key["secret"], access=key["access"], **whole)


def test_version_4(ann: Person, key: dict[str, Any], admin: httpx.Client) -> None:
    for said in ({}, {"verb": "POST", "body_hash": hashlib.sha256(b"Action=Test").hexdigest()}):
        answer = admin.post(f"{V3}/ec2tokens", json={"credentials": fourth(key, clock.utcnow(), **said)})
        assert answer.status_code == 200, answer.text
        assert answer.json()["token"]["user"]["id"] == ann.id
    for spoil in ({"path": "/other"}, {"body_hash": "0"}, {"verb": "PUT"}, {"params": {"Action": "Else"}}):
        refused = admin.post(f"{V3}/ec2tokens", json={"credentials": {**fourth(key, clock.utcnow()), **spoil}})
        assert refused.status_code == 401


def test_who_signed_wrong_or_long_ago_is_refused(key: dict[str, Any], admin: httpx.Client) -> None:
    good, old = second(key), clock.utcnow() - timedelta(minutes=16)
    for said, status, word in (
        ({**good, "signature": "x"}, 401, "Invalid EC2 signature"), ({**good, "signature": ""}, 401, "not supplied"), ({}, 401, "not supplied"),
        ({**good, "access": "none"}, 404, "access key not found"), ({**good, "params": {**good["params"], "SignatureVersion": "1"}}, 401, "version"),
        ({**good, "params": {}}, 401, "format"), (second(key, Timestamp=old.isoformat()), 401, "expired"), (fourth(key, old), 401, "expired"),
        (second(key, Timestamp="once"), 401, "timestamp"), ({**good, "host": "[:1"}, 401, "host"), ({**good, "params": []}, 400, "params"),
        ({**good, "headers": {"Authorization": "AWS4-HMAC-SHA256 "}, "params": {}}, 401, "date"), ({**good, "access": 7}, 400, "access"),
    ):  # fmt: skip
        answer = admin.post(f"{V3}/ec2tokens", json={"credentials": said})
        assert answer.status_code == status and word in answer.json()["error"]["message"], f"{said}: {answer.text}"
        assert key["secret"] not in answer.text
    for body in ({}, {"credentials": None}):
        assert admin.post(f"{V3}/ec2tokens", json=body).status_code == 400


def text_of(key: dict[str, Any], text: bytes, signature: str) -> dict[str, Any]:
    return {"credentials": {"access": key["access"], "token": base64.urlsafe_b64encode(text).decode(), "signature": signature}}


def test_s3(ann: Person, key: dict[str, Any], admin: httpx.Client) -> None:
    first = base64.b64encode(hmac.new(key["secret"].encode(), b"GET\n\n\n\n/bucket", "sha1").digest()).decode()
    answer = admin.post(f"{V3}/s3tokens", json=text_of(key, b"GET\n\n\n\n/bucket", first))
    assert answer.status_code == 200 and answer.json()["token"]["user"]["id"] == ann.id, answer.text
    assert "x-subject-token" not in answer.headers, "who signed one request gets no token for others"
    text = b"AWS4-HMAC-SHA256\n20260101T000000Z\n20260101/RegionOne/s3/aws4_request\n" + hashlib.sha256(b"any").hexdigest().encode()
    signing = f"AWS4{key['secret']}".encode()
    for part in (b"20260101", b"RegionOne", b"s3", b"aws4_request"):
        signing = hmac.new(signing, part, "sha256").digest()
    last = hmac.new(signing, text, "sha256").hexdigest()
    assert admin.post(f"{V3}/s3tokens", json=text_of(key, text, last)).status_code == 200
    for spoilt, signature in ((text, first), (text.replace(b"/s3/", b"/ec2/"), last), (text + b"\n", last), (b"AWS4", last), (b"other", first)):
        assert admin.post(f"{V3}/s3tokens", json=text_of(key, spoilt, signature)).status_code == 401
    assert admin.post(f"{V3}/s3tokens", json={"credentials": {"access": key["access"], "signature": "x", "token": "?é"}}).status_code == 401


def test_published_examples() -> None:
    """Those of the Amazon S3 API reference, "Authenticating Requests (AWS Signature Version 4)"."""
    secret, day = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "20130524T000000Z"
    scope, nothing = "AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request", hashlib.sha256(b"").hexdigest()
    names = "host;range;x-amz-content-sha256;x-amz-date"
    by_header = signatures.Signed(
        verb="GET", path="/test.txt", host="examplebucket.s3.amazonaws.com", body_hash=nothing,
        signature="f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        headers={"Host": "examplebucket.s3.amazonaws.com", "Range": "bytes=0-9", "x-amz-content-sha256": nothing, "X-Amz-Date": day,
                 "Authorization": f"AWS4-HMAC-SHA256 Credential={scope},SignedHeaders={names},Signature=f0e8"})  # fmt: skip
    by_query = signatures.Signed(
        verb="GET", path="/test.txt", host="examplebucket.s3.amazonaws.com", body_hash="UNSIGNED-PAYLOAD",
        signature="aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404",
        headers={"Host": "examplebucket.s3.amazonaws.com"},
        params={"X-Amz-Algorithm": "AWS4-HMAC-SHA256", "X-Amz-Credential": scope, "X-Amz-Date": day, "X-Amz-Expires": 86400,
                "X-Amz-SignedHeaders": "host", "X-Amz-Signature": "aeeed9"})  # fmt: skip
    for asked in (by_header, by_query):
        assert signatures.of_request(asked, secret) and not signatures.of_request(asked, secret.lower())


def test_a_key_is_worth_what_its_maker_was(running: Running, ann: Person, mine: httpx.Client, admin: httpx.Client) -> None:
    at = f"{V3}/users/{ann.id}/application_credentials"
    said = {"name": "keys", "unrestricted": True, "roles": [{"name": "member"}], "access_rules": [
        {"service": "identity", "method": "POST", "path": f"/v3/users/{ann.id}/credentials/OS-EC2"}]}  # fmt: skip
    program = mine.post(at, json={"application_credential": said}).json()["application_credential"]
    identity = {"methods": ["application_credential"], "application_credential": {"id": program["id"], "secret": program["secret"]}}
    with with_token(running, token(sign_in(running, identity))) as acting:
        key = made(acting, ann)
        elsewhere = admin.get(f"{V3}/auth/projects").json()["projects"][0]["id"]
        assert acting.post(f"{V3}/users/{ann.id}/credentials/OS-EC2", json={"tenant_id": elsewhere}).status_code == 403
    told = admin.post(f"{V3}/ec2tokens", json={"credentials": second(key)})
    assert told.json()["token"]["application_credential"]["id"] == program["id"]
    assert [rule["method"] for rule in told.json()["token"]["application_credential"]["access_rules"]] == ["POST"]
    with with_token(running, told.headers["x-subject-token"]) as held:
        assert held.get(f"{V3}/auth/catalog").status_code == 401
    assert mine.delete(f"{at}/{program['id']}").status_code == 204
    assert admin.post(f"{V3}/ec2tokens", json={"credentials": second(key)}).status_code == 401


def test_a_restricted_program_makes_no_keys(running: Running, ann: Person, mine: httpx.Client) -> None:
    program = mine.post(f"{V3}/users/{ann.id}/application_credentials", json={"application_credential": {"name": "weak"}}).json()[
        "application_credential"]  # fmt: skip
    identity = {"methods": ["application_credential"], "application_credential": {"id": program["id"], "secret": program["secret"]}}
    totp = mine.post(f"{V3}/credentials", json={"credential": {"type": "totp", "blob": "GEZDGNBVGY3TQOJQ", "user_id": ann.id}}).json()["credential"]
    blob = json.dumps({"access": "mine", "secret": "x"})
    with with_token(running, token(sign_in(running, identity))) as acting:
        assert acting.post(f"{V3}/users/{ann.id}/credentials/OS-EC2", json={"tenant_id": ann.project_id}).status_code == 403
        said = {"type": "ec2", "blob": blob, "project_id": ann.project_id, "user_id": ann.id}
        assert acting.post(f"{V3}/credentials", json={"credential": said}).status_code == 403
        assert acting.get(f"{V3}/credentials/{totp['id']}").status_code == acting.delete(f"{V3}/credentials/{totp['id']}").status_code == 403
        assert totp["id"] not in acting.get(f"{V3}/credentials").text
    mine.delete(f"{V3}/credentials/{totp['id']}")


def test_a_key_claims_no_delegation(running: Running, ann: Person, mine: httpx.Client, admin: httpx.Client) -> None:
    """Who knows the number of somebody's trust does not act by it."""
    said = {"type": "ec2", "project_id": ann.project_id, "user_id": ann.id}
    for name in ("trust_id", "app_cred_id", "access_token_id"):
        blob = json.dumps({"access": f"by-{name}", "secret": "x", name: "anybody's"})
        assert mine.post(f"{V3}/credentials", json={"credential": {**said, "blob": blob}}).status_code == 400
    plain = json.dumps({"access": "plain", "secret": "x"})
    one = mine.post(f"{V3}/credentials", json={"credential": {**said, "blob": plain}}).json()["credential"]
    later = json.dumps({"access": "plain", "secret": "x", "trust_id": "anybody's"})
    assert mine.patch(f"{V3}/credentials/{one['id']}", json={"credential": {"blob": later}}).status_code == 400
    assert mine.delete(f"{V3}/credentials/{one['id']}").status_code == 204


def test_a_key_made_by_a_trust_acts_by_it(running: Running, ann: Person, mine: httpx.Client, admin: httpx.Client) -> None:
    page = person(running, "page", "reader")
    said = {"trustor_user_id": ann.id, "trustee_user_id": page.id, "project_id": ann.project_id, "impersonation": True, "roles": [{"name": "member"}]}
    trust = mine.post(f"{V3}/OS-TRUST/trusts", json={"trust": said}).json()["trust"]["id"]
    with page.http({"OS-TRUST:trust": {"id": trust}}) as acting:
        key = made(acting, ann)
        assert key["trust_id"] == trust
        assert acting.get(f"{V3}/users/{ann.id}/application_credentials").status_code == 403
    told = admin.post(f"{V3}/ec2tokens", json={"credentials": second(key)}).json()["token"]
    assert (told["OS-TRUST:trust"]["id"], told["user"]["id"]) == (trust, ann.id)
    assert mine.delete(f"{V3}/OS-TRUST/trusts/{trust}").status_code == 204
    assert admin.post(f"{V3}/ec2tokens", json={"credentials": second(key)}).status_code == 401


@pytest.mark.commands
def test_the_command_line(running: Running) -> None:
    typist = person(running, "typist", "member")
    access, secret = typist.openstack("ec2", "credentials", "create", "-f", "value", "-c", "access", "-c", "secret").split()
    assert typist.openstack("ec2", "credentials", "list", "-f", "value", "-c", "Access", "-c", "Secret").split() == [access, secret]
    assert secret in typist.openstack("ec2", "credentials", "show", access)
    typist.openstack("ec2", "credentials", "delete", access)
    assert typist.openstack("ec2", "credentials", "list", "-f", "value") == ""


def test_of_a_user_who_is_gone(running: Running, admin: httpx.Client) -> None:
    bo = person(running, "bo", "member")
    key = made(bo.http(), bo)
    assert admin.patch(f"{V3}/users/{bo.id}", json={"user": {"enabled": False}}).status_code == 200
    assert admin.post(f"{V3}/ec2tokens", json={"credentials": second(key)}).status_code == 401
    assert admin.delete(f"{V3}/users/{bo.id}").status_code == 204
    assert admin.post(f"{V3}/ec2tokens", json={"credentials": second(key)}).status_code == 404
    assert openstack(running, "token", "issue", OS_USERNAME="bo", OS_PASSWORD="pw", OS_USER_DOMAIN_ID="default").returncode == 1
