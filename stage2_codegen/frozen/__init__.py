"""What critics and losses may use that nobody trains: frozen networks, the autoencoder, the scale of the codes."""
