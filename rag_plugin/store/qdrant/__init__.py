"""The same store face over a Qdrant cluster; needs the extra ``qdrant``."""
