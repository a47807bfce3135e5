"""What no policy gives to anybody but the bucket's owner."""

from __future__ import annotations

from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.protocol import s3_error


def require(request: s3_request.S3Request) -> None:
    """Stop others, as S3 stops other accounts. Raises S3Error: MethodNotAllowed."""
    if request.caller != request.bucket_record.owner:
        raise s3_error.make(
            "MethodNotAllowed", "The specified method is not allowed against this resource."
        )
