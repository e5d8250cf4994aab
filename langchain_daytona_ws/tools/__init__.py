"""The LangChain tools."""
