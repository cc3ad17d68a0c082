"""Run by test_services.py in an environment with s3fs and moto: the tests of repositories, against an S3 server on loopback.

``python inside_s3.py FOLDER``: FOLDER is the repository's checkout.
"""

import os
import sys

import boto3
import pytest
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
os.environ |= {
    "AWS_ACCESS_KEY_ID": "canary-key-id",
    "AWS_SECRET_ACCESS_KEY": "canary-secret-key",
    "AWS_DEFAULT_REGION": "us-east-1",
    "FSSPEC_S3_ENDPOINT_URL": f"http://{host}:{port}",
    "ADAPTERKIT_TEST_SCHEMES": "s3",
}
boto3.client("s3", endpoint_url=os.environ["FSSPEC_S3_ENDPOINT_URL"]).create_bucket(Bucket="adapters")
os.chdir(sys.argv[1])
code = pytest.main(
    ["-q", "-n", "0", "-p", "no:cacheprovider", "-k", "s3", "tests/remotes/test_fsspec.py", *sys.argv[2:]]
)
server.stop()
sys.exit(code)
