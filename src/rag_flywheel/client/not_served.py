"""What a Flywheel has and a service has not, and what to do instead."""

NOT_SERVED = {
    "open": "make a Client with the address of the service",
    "config": "read flywheel.toml in the folder of the index, on the machine of the service",
    "hashed_user": "give the id of the user; the service hashes it",
    "lookups": "the service has its own",
    "import_votes": "run `rag-flywheel import` on the machine of the service",
    "import_files": "run `rag-flywheel import` on the machine of the service",
    "export": "run `rag-flywheel export` on the machine of the service",
    "change_encoder": "run `rag-flywheel change-encoder` on the machine of the service",
    "drop_encoder_change": "run `rag-flywheel change-encoder --drop` on the machine of the service",
    "backup": "run `rag-flywheel backup` on the machine of the service",
    "repair": "run `rag-flywheel repair` on the machine of the service",
}
"""Public members of Flywheel that a client does not have."""


def not_served(client: str, name: str) -> str:
    """The message for a member that a client does not have."""
    if name in NOT_SERVED:
        return f"{client} has no {name}, which a service does not have: {NOT_SERVED[name]}"
    return f"{client!r} object has no attribute {name!r}"
