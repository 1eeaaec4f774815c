"""libsecp256k1 behind one small module each: keys, schnorr, musig2. Knows no Bitcoin."""
