"""`python -m cpvae` is the command `cpvae`."""

from cpvae.cli.commands import main

if __name__ == "__main__":
    main()
