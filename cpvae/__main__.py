"""`python -m cpvae` is the command `cpvae`."""

from cpvae.cli import main

if __name__ == "__main__":
    main()
