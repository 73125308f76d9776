"""Where uploads lie: sealed, each under its own key, on local disk or in a bucket."""
