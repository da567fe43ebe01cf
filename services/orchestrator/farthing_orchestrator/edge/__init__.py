"""What stands between the pipeline and the budget service.

The ledger's port over gRPC, and how a peer's statuses become the domain's failures, for every peer alike.
"""
