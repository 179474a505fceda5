"""The command `python cli.py`, installed as `securefed`."""


def main() -> None:
    """Run the command line."""


if __name__ == "__main__":
    main()
