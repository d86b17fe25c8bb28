"""The energies, one file each: every public function is defined once, for every framework."""
