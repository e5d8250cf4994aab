"""Approval of tool calls: queue the question, call the approver, and apply its answer."""
