"""``python -m rag_plugin`` is ``rag-plugin``."""

from rag_plugin.cli import main

if __name__ == "__main__":
    main()
