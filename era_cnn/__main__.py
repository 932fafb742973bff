"""`python -m era_cnn` is the command `era-cnn`."""

from era_cnn.cli import main

if __name__ == "__main__":
    main()
