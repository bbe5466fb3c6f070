"""What a person may do: a viewer sees, an operator also lets jobs go on, an admin also chooses models."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from fastapi import HTTPException, Request


class Role(StrEnum):
    """In rising order: each may do what those before it may."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def includes(self, needed: "Role") -> bool:
        """Whether this role may do what needs that one."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True)
class User:
    """Who asks."""

    name: str
    role: Role


def needs(role: Role) -> Callable[[Request], User]:
    """A dependency that gives who asks, and refuses whoever has not the role."""

    def user_with_role(request: Request) -> User:
        user: User | None = getattr(request.state, "user", None)
        if user is None:
            raise HTTPException(401, "Log in before.")
        if not user.role.includes(role):
            raise HTTPException(403, f"This needs the role {role}, and {user.name} has the role {user.role}.")
        return user

    return user_with_role
