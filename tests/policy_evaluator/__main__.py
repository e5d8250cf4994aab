"""Install the policy evaluator."""

from __future__ import annotations

from tests.policy_evaluator import installed

print(installed())
