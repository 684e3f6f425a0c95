"""Expert screening: labels are accepted, rejected and mended, in a browser or in QuPath."""
