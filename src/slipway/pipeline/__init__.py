"""Files to files, pure: validate → split → train → evaluate → gate."""
