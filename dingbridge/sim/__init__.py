"""Stand-ins for other people's servers; they import nothing of dingbridge."""
