"""The chaos run: everything that may fail fails, again and again, while writers never stop, and all ends exact."""
