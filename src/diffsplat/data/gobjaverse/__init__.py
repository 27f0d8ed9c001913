"""G-Objaverse: its public layout, its views, and its conversion into shards."""
