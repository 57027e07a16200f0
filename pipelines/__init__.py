"""The verbs a user types. No maths of a network and no training loop lives here."""
