"""QR codes of payment links, for documents. Pure: the encoder is ReportLab's, which needs no system libraries."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the library is imported on first use: at start-up it would cost every process
    from reportlab.graphics.shapes import Drawing

_QUIET = 4
"""Width of the light border, in modules, that scanners need."""


def qr_path(text: str) -> tuple[int, str]:
    """The side in modules with the border, and the dark modules as the path of an SVG."""
    from reportlab.graphics.barcode.qrencoder import QRCode, QRErrorCorrectLevel  # noqa: PLC0415 - see above

    code = QRCode(None, QRErrorCorrectLevel.M)
    code.addData(text)
    code.make()
    side = code.getModuleCount()  # type: ignore[no-untyped-call]
    dark = (
        f"M{column + _QUIET} {row + _QUIET}h1v1h-1z"
        for row in range(side)
        for column in range(side)
        if code.isDark(row, column)  # type: ignore[no-untyped-call]
    )
    return side + 2 * _QUIET, "".join(dark)


def qr_drawing(text: str, side_points: float) -> "Drawing":
    """The code as a square for a PDF."""
    from reportlab.graphics.barcode.qr import QrCodeWidget  # noqa: PLC0415 - see above
    from reportlab.graphics.shapes import Drawing  # noqa: PLC0415 - see above

    widget = QrCodeWidget(text, barLevel="M", barWidth=side_points, barHeight=side_points)
    drawing = Drawing(side_points, side_points)
    drawing.add(widget)
    return drawing
