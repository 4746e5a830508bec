"""Images: brought, held, and removed again."""
