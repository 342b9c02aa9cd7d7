"""Jobs that are submitted together and have callbacks for their end."""
