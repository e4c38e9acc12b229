"""Acting: a session per robot, a stateless actor that answers requests in batches, engines that run the model."""
