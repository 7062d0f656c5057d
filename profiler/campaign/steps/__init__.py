"""The steps of a campaign, prepare and measure, and what only they use."""
