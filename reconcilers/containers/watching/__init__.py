"""Who sees what happens to containers: kept in memory, fed by events, asked by the reconciler."""
