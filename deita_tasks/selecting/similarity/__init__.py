"""How near two rows are, exactly, and with few multiplications."""
