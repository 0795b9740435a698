"""Specialize: as few graphs and units as serve every declared size."""
