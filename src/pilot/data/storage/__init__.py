"""Files: written whole or not at all, fetched from elsewhere, streamed, cached."""
