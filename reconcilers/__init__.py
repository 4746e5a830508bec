"""The decisions: one folder per resource, each planning purely and acting on the plan."""
