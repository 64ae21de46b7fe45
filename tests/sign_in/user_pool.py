"""Signs users in to a Cognito user pool, with a password and a code of their authenticator app.

    user_pool.py URL

URL is where Cognito answers. Prints one line of JSON: the pool's issuer, where its keys are, its two clients, and the
tokens of ada, of bob, and of a user who is in the group `back-end`.
"""

import base64
import hashlib
import hmac
import json
import struct
import sys
import time

import boto3

PASSWORD = "Correct-horse-battery-staple-1"


def code_now(secret):
    """A code that is good for some seconds more, as a person would choose."""
    left = 30 - time.time() % 30
    if left < 5:
        time.sleep(left)
    return code(secret, time.time())


def code(secret, now):
    """The code that an authenticator app shows at that time (RFC 6238)."""
    key = base64.b32decode(secret + "=" * (-len(secret) % 8), casefold=True)
    digest = hmac.new(key, struct.pack(">Q", int(now) // 30), hashlib.sha1).digest()
    at = digest[-1] & 0x0F
    return f"{(struct.unpack('>I', digest[at:at + 4])[0] & 0x7FFFFFFF) % 1_000_000:06}"


class Pool:
    def __init__(self, url):
        self.url = url
        self.cognito = boto3.client(
            "cognito-idp", "eu-central-1", endpoint_url=url, aws_access_key_id="test", aws_secret_access_key="test"
        )
        self.id = self.cognito.create_user_pool(PoolName="app")["UserPool"]["Id"]
        self.app, self.job = (self.create_client(name) for name in ("app", "job"))
        self.cognito.create_group(UserPoolId=self.id, GroupName="back-end")

    def create_client(self, name):
        flows = ["ALLOW_USER_PASSWORD_AUTH", "ALLOW_REFRESH_TOKEN_AUTH"]
        created = self.cognito.create_user_pool_client(UserPoolId=self.id, ClientName=name, ExplicitAuthFlows=flows)
        return created["UserPoolClient"]["ClientId"]

    def set_mfa(self, mode):
        mfa = {"SoftwareTokenMfaConfiguration": {"Enabled": True}, "MfaConfiguration": mode}
        self.cognito.set_user_pool_mfa_config(UserPoolId=self.id, **mfa)

    def enrol(self, user):
        """Makes a user, and an authenticator app that both sides know the secret of."""
        self.cognito.admin_create_user(UserPoolId=self.id, Username=user, MessageAction="SUPPRESS")
        password = {"Password": PASSWORD, "Permanent": True}
        self.cognito.admin_set_user_password(UserPoolId=self.id, Username=user, **password)
        token = self.with_password(self.app, user)["AuthenticationResult"]["AccessToken"]
        secret = self.cognito.associate_software_token(AccessToken=token)["SecretCode"]
        verified = self.cognito.verify_software_token(AccessToken=token, UserCode=code_now(secret))
        assert verified["Status"] == "SUCCESS", verified
        preference = {"SoftwareTokenMfaSettings": {"Enabled": True, "PreferredMfa": True}}
        self.cognito.set_user_mfa_preference(AccessToken=token, **preference)
        return secret

    def with_password(self, client, user):
        parameters = {"USERNAME": user, "PASSWORD": PASSWORD}
        return self.cognito.initiate_auth(
            ClientId=client, AuthFlow="USER_PASSWORD_AUTH", AuthParameters=parameters
        )

    def with_code(self, client, user, session, shown):
        responses = {"USERNAME": user, "SOFTWARE_TOKEN_MFA_CODE": shown}
        return self.cognito.respond_to_auth_challenge(
            ClientId=client, ChallengeName="SOFTWARE_TOKEN_MFA", Session=session, ChallengeResponses=responses
        )

    def sign_in(self, client, user, secret):
        challenge = self.with_password(client, user)
        assert challenge.get("ChallengeName") == "SOFTWARE_TOKEN_MFA", challenge
        assert "AuthenticationResult" not in challenge, "the password alone must not do"
        try:
            # The code of another year.
            self.with_code(client, user, challenge["Session"], code(secret, 0))
            raise AssertionError("a wrong code signed somebody in")
        except self.cognito.exceptions.ClientError:
            challenge = self.with_password(client, user)
        shown = code_now(secret)
        tokens = self.with_code(client, user, challenge["Session"], shown)["AuthenticationResult"]
        return {"id": tokens["IdToken"], "access": tokens["AccessToken"]}


def main():
    pool = Pool(sys.argv[1])
    pool.set_mfa("OPTIONAL")
    secrets = {user: pool.enrol(user) for user in ("ada", "bob", "reporter")}
    pool.cognito.admin_add_user_to_group(UserPoolId=pool.id, Username="reporter", GroupName="back-end")
    pool.set_mfa("ON")
    print(json.dumps({
        "issuer": f"https://cognito-idp.eu-central-1.amazonaws.com/{pool.id}",
        "jwks_url": f"{pool.url}/{pool.id}/.well-known/jwks.json",
        "app": pool.app,
        "job": pool.job,
        "ada": pool.sign_in(pool.app, "ada", secrets["ada"]),
        "bob": pool.sign_in(pool.app, "bob", secrets["bob"]),
        "ada_by_job": pool.sign_in(pool.job, "ada", secrets["ada"]),
        "reporter": pool.sign_in(pool.app, "reporter", secrets["reporter"]),
    }))


main()
