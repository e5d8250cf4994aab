"""LangChain tools over one shared Daytona workspace."""
