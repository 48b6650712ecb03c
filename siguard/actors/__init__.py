"""Parties as trio actors: lifecycle, supervision, sessions, who knows which keys."""
