"""The public Python client: one class, async, and a synchronous face of it.

Answers come with their receipts.
Failures are exceptions with a code, a reason and facts.
"""

from farthing_client.blocking import BlockingFarthing
from farthing_client.client import Answer, Failure, Farthing

__all__ = ["Answer", "BlockingFarthing", "Failure", "Farthing"]
